// The laboratory: each module sets up its own section.

import "./keys.js";
import "./networks.js";
import "./live.js";
import "./play.js";
import "./travel.js";
import "./inside.js";
import "./proof.js";
import "./runs.js";
import "./fork.js";
import "./train.js";
import { lab } from "./lab.js";

lab.start();
