// The microphone: records locally in the browser until the recording is sent or discarded.
function equipRecorder(send) {
  const part = (id) => document.getElementById(id);
  const button = part("record");
  // Browsers deny the microphone to unencrypted pages from other machines.
  if (!navigator.mediaDevices?.getUserMedia || !window.MediaRecorder) return;
  button.hidden = false;
  const longest = Number(document.querySelector(".start").dataset.maxSeconds);
  const FORMS = [["audio/webm;codecs=opus", "webm"], ["audio/ogg;codecs=opus", "ogg"], ["audio/mp4", "m4a"]];
  const form = FORMS.find(([type]) => MediaRecorder.isTypeSupported(type));
  const REASONS = {
    NotAllowedError: "the browser was not allowed to use the microphone; allow it beside the page's address",
    NotFoundError: "there is no microphone",
    NotReadableError: "another program has the microphone",
  };
  // Below this level, in dB, the microphone is assumed to be switched off.
  const MUTE_DB = -70;
  const FALL_DB = 2;
  let count = 0;
  let finish = null;

  function complain(text) {
    part("record-problem").textContent = text;
    part("record-problem").hidden = !text;
    if (text) say(text);
  }

  function clock(seconds) {
    return `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
  }

  // Shows time and level until the returned function is called.
  function watch(stream) {
    const context = new AudioContext();
    const analyser = context.createAnalyser();
    context.createMediaStreamSource(stream).connect(analyser);
    // Longer than the polling interval, so that nothing is missed.
    analyser.fftSize = 8192;
    const samples = new Float32Array(analyser.fftSize);
    const begun = performance.now();
    let loudest = -Infinity;
    let shown = -Infinity;
    context.resume();
    const timer = setInterval(() => {
      const seconds = (performance.now() - begun) / 1000;
      part("recorded").textContent = clock(seconds);
      analyser.getFloatTimeDomainData(samples);
      const power = samples.reduce((sum, v) => sum + v * v, 0) / samples.length;
      const level = 10 * Math.log10(power + 1e-12);
      loudest = Math.max(loudest, level);
      // Falls slowly, like a usual level meter.
      shown = Math.max(level, shown - FALL_DB);
      part("level").value = shown;
      const mute = seconds > 3 && loudest < MUTE_DB;
      part("heard").textContent = mute ? "Nothing is heard: is the microphone switched off?" : `up to ${longest / 60} minutes`;
      if (seconds > longest - 1) finish(true);
    }, 100);
    return () => {
      clearInterval(timer);
      context.close();
    };
  }

  button.addEventListener("click", async () => {
    complain("");
    button.disabled = true;
    let stream;
    try {
      // Processing for telephone calls may remove one of two voices.
      const audio = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
      stream = await navigator.mediaDevices.getUserMedia({ audio });
    } catch (problem) {
      complain(REASONS[problem.name] ?? `the microphone cannot be used (${problem.name})`);
      button.disabled = false;
      button.focus();
      return;
    }
    const recorder = new MediaRecorder(stream, form && { mimeType: form[0] });
    const pieces = [];
    recorder.addEventListener("dataavailable", (event) => pieces.push(event.data));
    const unwatch = watch(stream);
    finish = (kept) => {
      finish = () => {};
      unwatch();
      recorder.addEventListener("stop", () => {
        for (const track of stream.getTracks()) track.stop();
        if (kept) send(new File(pieces, `microphone ${++count}.${form ? form[1] : "audio"}`));
      });
      if (recorder.state !== "inactive") recorder.stop();
      part("recorder").hidden = true;
      part("drop").hidden = false;
      button.disabled = false;
      button.focus();
      say(kept ? "the recording has ended and is sent" : "the recording is discarded");
    };
    // Unplugging the microphone ends the recording, which is kept.
    stream.getTracks()[0].addEventListener("ended", () => finish(true));
    recorder.start();
    part("drop").hidden = true;
    part("recorder").hidden = false;
    part("stop").focus();
    say("recording");
  });

  part("stop").addEventListener("click", () => finish(true));
  part("discard").addEventListener("click", () => finish(false));
}
