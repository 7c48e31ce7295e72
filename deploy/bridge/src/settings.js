/** Reads the settings from environment variables: Langfuse's names for Redis, and Waybill's for Kafka. */

import { readKafka } from './settings_kafka.js'
import { readRedis } from './settings_redis.js'
import { Reader } from './reader.js'

const TOPIC = /^(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}$/

/** Settings are wrong; `problems` has a sentence for each. */
export class Misconfigured extends Error {
  constructor(problems) {
    super(problems.join('\n'))
    this.problems = problems
  }
}

/** Return all settings, or throw Misconfigured with every problem that there is. */
export function readSettings(environment) {
  const reader = new Reader(environment)
  const settings = {
    redis: readRedis(reader),
    kafka: readKafka(reader),
    topic: reader.match('WAYBILL_REQUESTS_TOPIC', TOPIC, 'a topic name of letters, digits, ".", "_" and "-"') ?? 'export-requests',
    host: reader.text('WAYBILL_HTTP_HOST') ?? '0.0.0.0',
    port: reader.port('WAYBILL_INTERNAL_PORT', 6069),
    logFormat: readLogFormat(reader)
  }
  if (reader.problems.length > 0) throw new Misconfigured(reader.problems)
  return settings
}

/** As Waybill's daemons do: text on a terminal, and JSON elsewhere. */
function readLogFormat(reader) {
  return reader.choice('WAYBILL_LOG_FORMAT', ['json', 'text'], process.stdout.isTTY ? 'text' : 'json')
}
