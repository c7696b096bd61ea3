/* Runs in every browser, before the modules: says why the page cannot work, where it cannot. */
(function () {
  var told = null;
  if (location.protocol === "file:") {
    told = "Opened as a file, this page cannot run. Put its folder on a web server: python -m http.server in that folder, then http://localhost:8000.";
  } else if (typeof WebAssembly !== "object" || !("noModule" in document.createElement("script"))) {
    told = "This browser is too old for the page. Current versions of Chrome, Edge, Firefox and Safari run it.";
  }
  if (told) {
    document.addEventListener("DOMContentLoaded", function () {
      var problem = document.getElementById("problem");
      problem.textContent = told;
      problem.hidden = false;
      document.getElementById("status").textContent = "";
      document.getElementById("loading").hidden = true;
    });
  }
})();
