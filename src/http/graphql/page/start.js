// Starts GraphiQL for the node that has served the page. A token that is given as the header Authorization goes along,
// over the WebSocket, too.
(() => {
  const url = location.origin + location.pathname;
  const fetcher = GraphiQL.createFetcher({ url, subscriptionUrl: url.replace(/^http/, "ws") });
  const defaultQuery = [
    "# The latest records. For live ones, try:",
    "#   subscription { records(patterns: [\"**\"]) { ... on Record { source ts data } ... on Eos { resume } } }",
    "query {",
    "  node { id version ready }",
    "  records(first: 10) {",
    "    nodes { source ts data dataB64 }",
    "    pageInfo { hasNextPage endCursor }",
    "  }",
    "}",
    "",
  ].join("\n");
  const page = React.createElement(GraphiQL, { fetcher, defaultQuery });
  ReactDOM.createRoot(document.getElementById("graphiql")).render(page);
})();
