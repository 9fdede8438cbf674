import type { Command } from 'commander';

/** `demo`: the story, told on a generated graph. */
export function addDemo(program: Command): void {
  program
    .command('demo')
    .description('show the main job on a generated graph, in under a minute')
    .option('--keep', 'leave the files for a look')
    .action(async ({ keep }: { keep?: boolean }) => {
      const { tellStory } = await import('../../demo/story.ts');
      await tellStory({ keep: keep ?? false });
    });
}
