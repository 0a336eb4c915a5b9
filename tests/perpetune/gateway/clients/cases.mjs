// Runs named cases one after another and prints a line for each, in the Test Anything Protocol.
export async function run(cases) {
  for (const [name, check] of Object.entries(cases)) {
    try {
      await check();
      console.log(`ok ${name}`);
    } catch (fault) {
      console.log(`not ok ${name}: ${fault.stack}`);
      process.exitCode = 1;
    }
  }
}

export const base = `${process.argv[2]}/v1`;
