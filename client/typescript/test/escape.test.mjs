// Words for a shell: it reads them as they were meant, and a terminal shows them harmlessly.

import assert from "node:assert/strict"
import { spawnSync } from "node:child_process"
import { test } from "node:test"

import { shellWord } from "../dist/core/escape.js"

test("a word is that word to a shell, whatever is in it", () => {
  const hostile = ["\x1b[2J", "a\nb", "a\u202eb", "\x7f\x9b", "a'; touch owned; $(id) `id` \"b\" \\ #\n", "a'b", "~", "*", ""]
  for (const text of [...hostile, "/plain/path", "/a b/c"]) {
    const word = shellWord(text)
    assert.match(word, /^[^\u0000-\u001f\u007f-\u009f\u202a-\u202e]*$/)
    assert.equal(spawnSync("bash", ["-c", `printf %s ${word}`]).stdout.toString(), text)
  }
  assert.equal(shellWord("/plain/path"), "/plain/path")
})
