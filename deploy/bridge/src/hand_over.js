/** Makes a request of each job, and completes the job when Kafka has the request. */

import { UnrecoverableError, WaitingError } from 'bullmq'

const LONGEST_ID = 512

/** Return the ids in a job's data; throws UnrecoverableError if Waybill could not read them. */
export function readRequest(data) {
  const { projectId, batchExportId } = data?.payload ?? {}
  for (const [name, id] of Object.entries({ projectId, batchExportId })) {
    if (typeof id !== 'string' || id === '' || [...id].length > LONGEST_ID || id.includes('\u0000')) {
      throw new UnrecoverableError(`payload.${name} is no id: a text of 1 to ${LONGEST_ID} characters is expected`)
    }
  }
  return { projectId, batchExportId }
}

/**
 * Return the function that BullMQ calls with each job, and whose end completes the job. When `stopping` is aborted, jobs
 * that are not published return to the queue, and count no attempt.
 */
export function handOver(publisher, stopping, log) {
  return async (job, token) => {
    const request = readRequest(job.data)
    try {
      await publisher.publish(request, stopping)
    } catch (error) {
      if (!stopping.aborted) throw error
      await job.moveToWait(token)
      throw new WaitingError()
    }
    log.info('published the request of a job', { jobId: job.id, ...request })
  }
}
