/* Unpacks code and data (gzip in base64), then begins; as a frame of the report it takes the height that it needs. */
(async function () {
  async function unpack(id) {
    const text = atob(document.getElementById(id).textContent);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i += 1) bytes[i] = text.charCodeAt(i);
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  }
  function fit() {
    try {
      if (window.frameElement) window.frameElement.style.height = Math.ceil(document.body.offsetHeight) + 20 + "px";
    } catch (error) {
      /* A frame of another origin keeps the height that it was given. */
    }
  }
  try {
    const [code, text] = await Promise.all([unpack("code"), unpack("data")]);
    const script = document.createElement("script");
    script.textContent = code;
    document.head.append(script);
    const { data, charts } = JSON.parse(text);
    new ResizeObserver(fit).observe(document.body);
    await window.hedflowExplorer(data, charts);
  } catch (error) {
    document.getElementById("status").textContent =
      "The explorer could not be shown; it needs a browser of 2023 or later. (" + error + ")";
    throw error;
  }
})();
