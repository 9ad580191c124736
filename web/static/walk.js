// Going from page to page without a blank moment: the neighbours are fetched ahead, the body is exchanged.

const KEPT = 12;
const fetched = new Map(); // address → promise of its document

function documentOf(address) {
  if (!fetched.has(address)) {
    fetched.set(
      address,
      fetch(address, { headers: { Accept: "text/html" } }).then(async (answer) => {
        if (!answer.ok) throw new Error(`${address} answered ${answer.status}`);
        return new DOMParser().parseFromString(await answer.text(), "text/html");
      }),
    );
    fetched.get(address).catch(() => fetched.delete(address));
    while (fetched.size > KEPT) fetched.delete(fetched.keys().next().value);
  }
  return fetched.get(address);
}

let twinAsked = { address: null, answer: null };

/** What the page shown holds, as JSON; asked for once. */
export function twin() {
  const address = document.querySelector("link[rel=alternate]").href;
  if (twinAsked.address !== address)
    twinAsked = {
      address,
      answer: fetch(address).then((answer) => {
        if (!answer.ok) throw new Error(`${address} answered ${answer.status}`);
        return answer.json();
      }),
    };
  return twinAsked.answer;
}

/** Fetch a page and its pictures, so that showing it waits for nothing. */
export async function prefetch(address) {
  try {
    const ahead = await documentOf(address);
    for (const image of ahead.querySelectorAll("main img[src]")) new Image().src = image.getAttribute("src");
  } catch {
    // It will be asked for again when it is wanted, and then say what is wrong.
  }
}

let asked = 0; // pages, until now

/** Show a page in place of this one, unless another is asked for before it comes. */
export async function go(address, { push = true } = {}) {
  const number = ++asked;
  let ahead;
  try {
    ahead = (await documentOf(address)).cloneNode(true);
  } catch {
    if (number === asked) location.assign(address);
    return;
  }
  if (number !== asked) return;
  for (const image of ahead.querySelectorAll("main img[src]")) image.loading = "eager";
  if (push) history.pushState(null, "", address);
  document.title = ahead.title;
  document.querySelector("link[rel=alternate]")?.replaceWith(ahead.querySelector("link[rel=alternate]"));
  document.body.replaceWith(ahead.body);
  document.dispatchEvent(new CustomEvent("shown"));
}

/** Note a choice in the address without asking the server: what a reload or a shared link shows. */
export function note(changes) {
  const here = new URL(location.href);
  for (const [name, value] of Object.entries(changes)) {
    if (value === null) here.searchParams.delete(name);
    else here.searchParams.set(name, value);
  }
  history.replaceState(null, "", here);
  document.dispatchEvent(new CustomEvent("noted"));
  // Links to neighbours carry the same choice on.
  for (const link of document.querySelectorAll("a[rel=prev], a[rel=next]")) {
    const there = new URL(link.href);
    there.search = here.search;
    link.href = there;
  }
}
