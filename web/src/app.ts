import { FigureReader } from "./model/figures";
import { Names } from "./model/names";
import { Link } from "./net/link";
import { moveTo } from "./ui/router";
import { theme } from "./ui/theme";

/** What all views share: one connection, the figures of its node, and the names of the sources. */
export const link = new Link((host, from) => moveTo(host, from, theme.value));
export const figures = new FigureReader(link);
export const names = new Names();
