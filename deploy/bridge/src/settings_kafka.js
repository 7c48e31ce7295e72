/** Reads the connection to Kafka from the variables that Waybill's daemons read. */

import { isIP } from 'node:net'

const PROTOCOLS = ['PLAINTEXT', 'SSL', 'SASL_PLAINTEXT', 'SASL_SSL']
const MECHANISMS = ['PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512']
const TOKENS = ['OAUTHBEARER', 'AWS_MSK_IAM']

/** Return the options of a client: `{ bootstrapBrokers, tls?, sasl? }`. */
export function readKafka(reader) {
  const brokers = reader.servers('KAFKA_BOOTSTRAP_SERVERS', 9092)
  if (brokers === undefined) reader.problems.push('KAFKA_BOOTSTRAP_SERVERS is missing')
  const protocol = reader.choice('KAFKA_SECURITY_PROTOCOL', PROTOCOLS, 'PLAINTEXT')
  return {
    bootstrapBrokers: brokers,
    ...(protocol.endsWith('SSL') ? { tls: readTls(reader), tlsServerName: brokers?.some(({ host }) => !isIP(host)) } : {}),
    ...(protocol.startsWith('SASL') ? { sasl: readLogin(reader) } : {})
  }
}

function readLogin(reader) {
  const mechanism = reader.text('KAFKA_SASL_MECHANISM')
  if (TOKENS.includes(mechanism)) {
    reader.problems.push(
      `KAFKA_SASL_MECHANISM=${mechanism} is not supported by the bridge: give it a user with a password (${MECHANISMS.join(', ')}), ` +
        'or leave the bridge out; consumers find the exports without it within a minute'
    )
    return undefined
  }
  return {
    mechanism: reader.choice('KAFKA_SASL_MECHANISM', MECHANISMS, 'PLAIN'),
    username: requireValue(reader, 'KAFKA_SASL_USERNAME', reader.text('KAFKA_SASL_USERNAME')),
    password: requireValue(reader, 'KAFKA_SASL_PASSWORD', reader.secret('KAFKA_SASL_PASSWORD'))
  }
}

function requireValue(reader, name, value) {
  if (value === undefined) reader.problems.push(`${name} is missing: the value of KAFKA_SECURITY_PROTOCOL requires it`)
  return value
}

function readTls(reader) {
  const given = {
    ca: reader.authorities(reader.text('KAFKA_SSL_CA_LOCATION') ? 'KAFKA_SSL_CA_LOCATION' : 'SSL_CERT_FILE'),
    cert: reader.file('KAFKA_SSL_CERTIFICATE_LOCATION'),
    key: reader.file('KAFKA_SSL_KEY_LOCATION'),
    passphrase: reader.secret('KAFKA_SSL_KEY_PASSWORD')
  }
  const tls = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined))
  if ((tls.cert === undefined) !== (tls.key === undefined) && reader.problems.length === 0) {
    reader.problems.push('KAFKA_SSL_CERTIFICATE_LOCATION and KAFKA_SSL_KEY_LOCATION require each other, and one is missing')
  }
  reader.checkTls(tls, 'KAFKA_SSL_CERTIFICATE_LOCATION, KAFKA_SSL_KEY_LOCATION and KAFKA_SSL_KEY_PASSWORD')
  return tls
}
