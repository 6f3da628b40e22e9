// Everything that a client does, with code by @hey-api/openapi-ts. Prints what it saw as JSON.
import { createClient } from "./filmgate/client/index.js";
import * as filmgate from "./filmgate/index.js";

const baseUrl = process.env.FILMGATE_URL!;
const connect = (auth: string) => createClient({ baseUrl, auth });
const client = connect(process.env.FILMGATE_API_KEY!);

function order(prompt = "a kite", model = "sandbox/video"): filmgate.JobCreate {
  return { prompt, model, seconds: 1, size: "128x96" };
}

async function create(body: filmgate.JobCreate, key: string): Promise<filmgate.Job> {
  const { data } = await filmgate.createJob({ client, body, headers: { "Idempotency-Key": key }, throwOnError: true });
  return data;
}

async function ended(job: filmgate.Job): Promise<filmgate.Job> {
  while (job.status === "queued" || job.status === "running") {
    const { data } = await filmgate.getJob({
      client,
      path: { job_id: job.id },
      headers: { Prefer: "wait=30" },
      throwOnError: true,
    });
    job = data;
  }
  return job;
}

const first = await create(order(), "first");
const again = await create(order(), "first");
const job = await ended(first);
const video = job.assets!.video;
const content = await filmgate.getAssetContent({
  client,
  path: { asset_id: video.id },
  parseAs: "blob",
  throwOnError: true,
});

const slow = await create(order("a kite [slow:60]"), "second");
await filmgate.cancelJob({ client, path: { job_id: slow.id }, throwOnError: true });
const canceled = await ended(slow);

const listed: string[] = [];
let cursor: string | undefined;
do {
  const { data } = await filmgate.listJobs({ client, query: { limit: 1, cursor }, throwOnError: true });
  listed.push(...data.data.map((one) => one.id));
  cursor = data.next_cursor ?? undefined;
} while (cursor);

const refused = [
  await filmgate.getJob({ client: connect("fgk_nothing"), path: { job_id: job.id } }),
  await filmgate.getJob({ client, path: { job_id: "job_nothing" } }),
  await filmgate.createJob({ client, body: order("a kite", "no/such") }),
];

const events: string[] = [];
let url: string | undefined;
const { stream } = await filmgate.streamJobEvents({ client, path: { job_id: job.id }, sseMaxRetryAttempts: 1 });
for await (const event of stream) {
  events.push(event.type);
  if (event.type === "job.succeeded") url = event.data.assets?.video.content_url;
}

console.log(
  JSON.stringify({
    replayed: again.id === first.id,
    status: job.status,
    size: video.size_bytes,
    downloaded: (content.data as Blob).size,
    canceled: canceled.status,
    listed: listed.sort().join() === [job.id, slow.id].sort().join(),
    problems: Object.fromEntries(refused.map(({ error }) => [error!.status, error!.code])),
    events,
    url: url === video.content_url,
  }),
);
