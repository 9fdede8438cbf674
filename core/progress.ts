/** Told by long work as it goes on. */
export type OnProgress = (phase: string, doneBytes: number, totalBytes: number) => void;
