// A page that says what went wrong: back to where one came from, if there was anything.

const back = document.getElementById("back");
back.hidden = window.history.length < 2;
back.addEventListener("click", (event) => {
	event.preventDefault();
	window.history.back();
});
