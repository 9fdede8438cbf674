/** Reports the progress of a long operation. */
export type OnProgress = (phase: string, doneBytes: number, totalBytes: number) => void;
