// Asks a service with the official client, and prints what came of it as JSON: node openai.mjs ADDRESS KEY QUESTION
import OpenAI from "openai";

const [, , baseURL, apiKey, question] = process.argv;
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const model = "whence";
const messages = [{ role: "user", content: question }];

async function failure(promise) {
  try {
    await promise;
  } catch (error) {
    const { constructor, status, code, param, requestID } = error;
    return { name: constructor.name, status, code, param, requestID };
  }
}

const models = [];
for await (const each of client.models.list()) models.push(each);

const plain = await client.chat.completions.create({ model, messages });

const chunks = [];
const options = { include_usage: true };
const stream = await client.chat.completions.create({ model, messages, stream: true, stream_options: options });
for await (const chunk of stream) chunks.push(chunk);

const pieces = [];
const runner = client.chat.completions.stream({ model, messages }).on("content", (piece) => pieces.push(piece));
const final = await runner.finalChatCompletion();

const failures = [
  await failure(client.models.retrieve("gpt")),
  await failure(client.chat.completions.create({ model, messages: [] })),
  await failure(client.chat.completions.create({ model, messages: [{ role: "assistant", content: "Yes." }], stream: true })),
  await failure(new OpenAI({ baseURL, apiKey: "whence_wrong", maxRetries: 0 }).models.list()),
];

console.log(JSON.stringify({ models, plain, chunks, pieces, final, failures }));
