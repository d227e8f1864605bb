// A word for a command that somebody may paste into a shell.

const PLAIN = /^[\w@%+=:,./-]+$/
// What a terminal acts on, or does not show.
const UNSAFE = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff0-\ufffb]/

/** Returns the word, quoted where a shell would read it otherwise. */
export function shellWord(text: string): string {
  if (PLAIN.test(text)) return text
  if (!UNSAFE.test(text)) return `'${text.replaceAll("'", `'"'"'`)}'`
  let inner = ""
  for (const char of text) {
    if (char === "\\" || char === "'") inner += `\\${char}`
    else if (!UNSAFE.test(char)) inner += char
    else for (const byte of Buffer.from(char)) inner += `\\${byte.toString(8).padStart(3, "0")}`
  }
  return `$'${inner}'`
}
