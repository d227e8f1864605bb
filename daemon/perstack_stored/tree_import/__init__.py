"""Import of a tree that Perstack wrote itself: survey, plan, and the resulting records.

Entry points: `first_start.import_tree`, `survey.TreeSurvey`. Imports: `journal`, `tree`, `model`.
"""
