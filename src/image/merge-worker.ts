/** A thread that merges the trees of one image. */
import { parentPort, workerData } from 'node:worker_threads';
import { toLaminaError } from '../errors.js';
import { mergeToStore, type MergeAnswer, type MergeJob } from './merge.js';

function run(job: MergeJob): MergeAnswer {
  try {
    mergeToStore(job);
    return null;
  } catch (e) {
    return toLaminaError(e, 'Merging the layers').toJSON();
  }
}

parentPort?.postMessage(run(workerData as MergeJob));
