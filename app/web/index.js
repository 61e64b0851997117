// The page: what all views need, then the view of the URL.

import "./events.js";
import "./parts/chooser.js";
import "./parts/dropping.js";
import "./parts/glossary.js";
import "./parts/keys.js";
import "./parts/notices.js";
import { lab } from "./lab.js";
import { start } from "./views.js";

lab.start();
start();
