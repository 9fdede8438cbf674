import type { Command } from 'commander';

/** `demo`: the story, told on a generated graph. */
export function addDemo(program: Command): void {
  program
    .command('demo')
    .description('show the main job on a generated graph, in under a minute')
    .option('--keep', 'leave the files for a look')
    .action(async ({ keep }: { keep?: boolean }) => {
      const { runDemo } = await import('../../demo/story.ts');
      await runDemo({ keep: keep ?? false });
    });
}
