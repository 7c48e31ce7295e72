/** Reads the connection to Redis from the variables that Langfuse reads. */

const URL_FORM = 'redis://[user:password@]host[:port][/database], or rediss:// with TLS'

/** Return `{ mode, keyPrefix, nodes, options }`: the mode is `single`, `cluster`, which alone has nodes, or `sentinel`. */
export function readRedis(reader) {
  const cluster = reader.flag('REDIS_CLUSTER_ENABLED', false)
  const sentinel = reader.flag('REDIS_SENTINEL_ENABLED', false)
  if (cluster && sentinel) {
    reader.problems.push('REDIS_CLUSTER_ENABLED and REDIS_SENTINEL_ENABLED are both true; only one can be')
    return undefined
  }
  const login = {
    username: reader.text('REDIS_USERNAME'),
    password: reader.secret('REDIS_AUTH'),
    ...readTls(reader)
  }
  const keyPrefix = reader.text('REDIS_KEY_PREFIX')
  if (cluster) return { mode: 'cluster', keyPrefix, nodes: readNodes(reader, 'REDIS_CLUSTER_NODES', 'REDIS_CLUSTER_ENABLED'), options: login }
  if (sentinel) return { mode: 'sentinel', keyPrefix, options: { ...login, ...readSentinel(reader) } }
  return { mode: 'single', keyPrefix, options: { ...login, ...readServer(reader) } }
}

function readNodes(reader, name, needed) {
  const nodes = reader.servers(name)
  if (nodes === undefined) reader.problems.push(`${name} is missing: ${needed}=true requires it`)
  return nodes
}

function readSentinel(reader) {
  const name = reader.text('REDIS_SENTINEL_MASTER_NAME')
  if (name === undefined) reader.problems.push('REDIS_SENTINEL_MASTER_NAME is missing: REDIS_SENTINEL_ENABLED=true requires it')
  return {
    name,
    sentinels: readNodes(reader, 'REDIS_SENTINEL_NODES', 'REDIS_SENTINEL_ENABLED'),
    sentinelUsername: reader.text('REDIS_SENTINEL_USERNAME'),
    sentinelPassword: reader.secret('REDIS_SENTINEL_PASSWORD')
  }
}

/** The server of REDIS_CONNECTION_STRING or, without it, of REDIS_HOST and REDIS_PORT. */
function readServer(reader) {
  const connection = reader.text('REDIS_CONNECTION_STRING')
  if (connection !== undefined) return readUrl(reader, connection)
  const host = reader.text('REDIS_HOST')
  if (host === undefined) reader.problems.push('REDIS_HOST is missing, and so is REDIS_CONNECTION_STRING: one of them is required')
  return { host, port: reader.port('REDIS_PORT', 6379) }
}

function readUrl(reader, connection) {
  const url = URL.canParse(connection) ? new URL(connection) : undefined
  const database = url?.pathname.slice(1) ?? ''
  if (!url || !['redis:', 'rediss:'].includes(url.protocol) || !url.hostname || !/^\d{0,9}$/.test(database)) {
    // The value is not repeated: it may contain a password.
    reader.problems.push(`REDIS_CONNECTION_STRING is no URL of a Redis server; expected is ${URL_FORM}`)
    return {}
  }
  const found = {
    host: url.hostname.replace(/^\[(.*)\]$/, '$1'),
    port: Number(url.port || 6379),
    db: Number(database || 0)
  }
  try {
    if (url.username) found.username = decodeURIComponent(url.username)
    if (url.password) found.password = decodeURIComponent(url.password)
  } catch {
    reader.problems.push('REDIS_CONNECTION_STRING has a user or a password in which a "%" begins no code; write it as %25')
  }
  // The settings of TLS that are given replace this one, as in Langfuse.
  if (url.protocol === 'rediss:' && !reader.flag('REDIS_TLS_ENABLED', false)) found.tls = {}
  return found
}

function readTls(reader) {
  if (!reader.flag('REDIS_TLS_ENABLED', false)) return {}
  const given = {
    ca: reader.authorities('REDIS_TLS_CA_PATH'),
    cert: reader.file('REDIS_TLS_CERT_PATH'),
    key: reader.file('REDIS_TLS_KEY_PATH'),
    passphrase: reader.secret('REDIS_TLS_KEY_PASSPHRASE'),
    servername: reader.text('REDIS_TLS_SERVERNAME'),
    secureProtocol: reader.text('REDIS_TLS_SECURE_PROTOCOL'),
    ciphers: reader.text('REDIS_TLS_CIPHERS')
  }
  const tls = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined))
  if (!reader.flag('REDIS_TLS_REJECT_UNAUTHORIZED', true)) tls.rejectUnauthorized = false
  if (!reader.flag('REDIS_TLS_CHECK_SERVER_IDENTITY', true)) tls.checkServerIdentity = () => undefined
  if (reader.flag('REDIS_TLS_HONOR_CIPHER_ORDER', false)) tls.honorCipherOrder = true
  reader.checkTls(tls, 'The settings REDIS_TLS_…')
  return { tls }
}
