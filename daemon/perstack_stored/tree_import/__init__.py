"""Import of a tree that Perstack wrote itself: survey, plan, and the records that come of it.

Entry points: `first_start.import_tree`, `survey.Survey`. Imports: `journal`, `tree`.
"""
