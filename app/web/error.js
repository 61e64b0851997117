// The error page: offers a way back if there is one.

const back = document.getElementById("back");
back.hidden = window.history.length < 2;
back.addEventListener("click", (event) => {
	event.preventDefault();
	window.history.back();
});
