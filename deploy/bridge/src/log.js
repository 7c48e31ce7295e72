/** Writes log lines to the standard output: JSON for machines, or text for people on a terminal. */

/** Return a log with `info`, `warning` and `error`, each taking a sentence and fields; `format` is `json` or `text`. */
export function openLog(format, write = (line) => process.stdout.write(line)) {
  const render = format === 'json' ? renderJson : renderText
  const at = (level) => (message, fields = {}) => write(`${render(new Date(), level, message, fields)}\n`)
  return { info: at('INFO'), warning: at('WARNING'), error: at('ERROR') }
}

function renderJson(time, level, message, fields) {
  return JSON.stringify({ time: time.toISOString(), level, logger: 'bridge', message, ...fields })
}

function renderText(time, level, message, fields) {
  const extras = Object.entries(fields).map(([name, value]) => ` ${name}=${plain(value)}`)
  return `${time.toISOString().slice(11, 19)} ${level.padEnd(7)} ${plain(message)}${extras.join('')}`
}

/** Escape control characters, so that a value can't begin a line of its own. */
function plain(value) {
  // eslint-disable-next-line no-control-regex
  return String(value).replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g, (each) => JSON.stringify(each).slice(1, -1))
}
