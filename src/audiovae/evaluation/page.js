"use strict";
// A picture plays its sound and shows where it is; one sound at a time. Without this script the browser's
// own players are shown.
document.documentElement.classList.add("script");
let current = null;

function stop() {
  if (!current) return;
  current.audio.pause();
  current.sound.classList.remove("playing");
  current = null;
}

function play(sound, next) {
  stop();
  const audio = sound.querySelector("audio");
  const head = sound.querySelector(".head");
  current = { sound, audio };
  const mine = current;
  sound.classList.add("playing");
  audio.currentTime = 0;
  audio.onended = () => {
    if (current !== mine) return;
    stop();
    if (next) next();
  };
  audio.play().catch(stop);
  (function follow() {
    if (current !== mine) return;
    head.style.left = `${(100 * audio.currentTime) / (audio.duration || 1)}%`;
    requestAnimationFrame(follow);
  })();
}

for (const sound of document.querySelectorAll(".sound")) {
  sound.querySelector(".picture").addEventListener("click", () => {
    if (current && current.sound === sound) stop();
    else play(sound);
  });
}

for (const button of document.querySelectorAll(".all")) {
  const sounds = [...button.nextElementSibling.querySelectorAll(".sound")];
  button.addEventListener("click", () => {
    const from = (i) => i < sounds.length && play(sounds[i], () => from(i + 1));
    from(0);
  });
}
