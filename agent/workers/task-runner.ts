import {
  type CutOutput,
  CutRunner,
  type CutSettings,
  type CutTask,
  type CutTaskResults,
} from './cut-task.ts';
import { GradeRunner, type GradeTask, type GradeTaskResults } from './grade-task.ts';
import { type ProveFrameTask, type ProveTaskResults, runProveFrame } from './prove-task.ts';
import { runVerifyPack, type VerifyPackTask, type VerifyTaskResults } from './verify-task.ts';
import { WorkBuffers } from './work-buffers.ts';
import { runWriteUnits, type WriteTaskResults, type WriteUnitsTask } from './write-task.ts';

/** A piece of work for one worker. */
export type Task = CutTask | WriteUnitsTask | VerifyPackTask | ProveFrameTask | GradeTask;

export interface TaskResults
  extends CutTaskResults,
    WriteTaskResults,
    VerifyTaskResults,
    ProveTaskResults,
    GradeTaskResults {}

export type TaskResult<T extends Task> = TaskResults[T['op']];

/** Where the results of tasks go before a task ends, and memory that is free meanwhile. */
export interface TaskOutput extends CutOutput {
  /** Returns the frame buffers, which are free while no frames are made; none if they are not shared memory. */
  idleMemory(): Buffer[];
}

/** Runs tasks one after another, the same way in a thread and inline. */
export class TaskRunner {
  readonly #buffers: WorkBuffers;
  readonly #cut: CutRunner;
  readonly #grade: GradeRunner;

  constructor(settings: CutSettings, output: TaskOutput) {
    this.#buffers = new WorkBuffers(() => output.idleMemory());
    this.#cut = new CutRunner(settings, this.#buffers, output);
    this.#grade = new GradeRunner(this.#buffers);
  }

  /** Drops what an interrupted job has left. Returns false if the settings need another runner. */
  reset(settings: CutSettings): boolean {
    if (!this.#cut.reset(settings)) return false;
    this.#grade.reset();
    return true;
  }

  run(task: Task): TaskResult<Task> {
    switch (task.op) {
      case 'cut-block':
        return this.#cut.cutBlock(task);
      case 'cut-files':
        return this.#cut.cutFiles(task);
      case 'append-units':
        return this.#cut.appendUnits(task);
      case 'flush-frames':
        return this.#cut.flushFrames();
      case 'write-units':
        return runWriteUnits(task, this.#buffers);
      case 'verify-pack':
        return runVerifyPack(task);
      case 'prove-frame':
        return runProveFrame(task, this.#buffers);
      case 'grade':
        return this.#grade.run(task.step);
    }
  }
}
