// The page of workers, kept up to date.

import {keepFresh} from "./refresh.js";

keepFresh(document.getElementById("list"), "class");
