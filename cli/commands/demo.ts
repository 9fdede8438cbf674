import type { Command } from 'commander';

/** Adds `demo`, which shows the main job on a generated graph. */
export function addDemo(program: Command): void {
  program
    .command('demo')
    .description('show the main job on a generated graph, in under a minute')
    .option('--keep', 'do not remove the files at the end')
    .action(async ({ keep }: { keep?: boolean }) => {
      const { runDemo } = await import('../../demo/story.ts');
      await runDemo({ keep: keep ?? false });
    });
}
