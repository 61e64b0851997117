// The equations of each cell, with the names of model/reference.py: rows times matrices, σ the logistic function.

const LINES = {
	elman: ["h = tanh(x U + b + h' W)"],
	gru: [
		"r = σ(x U_r + b_r + h' W_r)         how much of the past it reads",
		"z = σ(x U_z + b_z + h' W_z)         how much of the past it keeps",
		"n = tanh(x U_n + b_n + r · h' W_n)  what it would write",
		"h = (1 − z) · n + z · h'",
	],
	lstm: [
		"i = σ(x U_i + b_i + h' W_i)      what it lets in",
		"f = σ(x U_f + b_f + h' W_f)      what it keeps",
		"g = tanh(x U_g + b_g + h' W_g)   what it would write",
		"o = σ(x U_o + b_o + h' W_o)      what it shows",
		"c = f · c' + i · g",
		"h = o · tanh(c)",
	],
};

// h' and c' are those of the step before.
export const equationsOf = (cell) => [...LINES[cell], "p = softmax(h V + c_out)"].join("\n");
