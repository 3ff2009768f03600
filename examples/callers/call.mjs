// JSON-RPC in Node, with nothing installed: node call.mjs http://127.0.0.1:8080/rpc
async function call(url, method, ...params) {
  const response = await fetch(url, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ jsonrpc: "2.0", method, params, id: 1 }),
  });
  const answer = await response.json();
  return answer.error ? `${answer.error.code} ${answer.error.message}` : JSON.stringify(answer.result);
}

const url = process.argv[2];
console.log(await call(url, "add", 5, 6));
console.log(await call(url, "text.count", "To be or not to be"));
console.log(await call(url, "divide", 1, 0));
console.log(await call(url, "os.system", "true"));
