import { render } from "preact";
import { figures, link } from "./app";
import { followHash, place } from "./ui/router";
import { restoreTheme } from "./ui/theme";
import { Shell } from "./views/shell";
import "./fonts.css";
import "./style.css";

restoreTheme(place.value.query.get("theme"));
followHash();
link.start();
figures.start();
render(<Shell />, document.getElementById("page")!);
