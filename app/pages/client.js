/* One way to call the API, for the page of reports: progress, an upper limit, and sentences for what went wrong. */
'use strict';
window.yizhanClient = function (t, lang, figures, acts) {
  /* One way to call the API: answers {status, body, headers}; a lost network is status 0, too much -1, given up -2. */
  function call(method, path, body, more) {
    more = more || {};
    var headers = { 'Accept-Language': lang() };
    if (body !== undefined) { headers['Content-Type'] = 'application/json'; }
    return fetch(path, {
      method: method, headers: headers, credentials: 'same-origin', cache: 'no-store', signal: more.signal,
      body: body === undefined ? undefined : JSON.stringify(body)
    }).then(function (answer) {
      var found = { status: answer.status, body: null, headers: answer.headers, retryAfter: Number(answer.headers.get('Retry-After')) || 0 };
      return received(answer, more).then(function (blob) {
        if (blob === null) { found.status = -1; return found; }
        if (more.asFile && answer.status === 200) { found.body = blob; return found; }
        return blob.text().then(function (text) {
          try { found.body = text ? JSON.parse(text) : null; } catch (e) { found.body = null; }
          return found;
        });
      });
    }).catch(function (error) { return { status: error.name === 'AbortError' ? -2 : 0, body: null, retryAfter: 0 }; }).then(function (found) {
      if (found.status === 401 && path !== '/v1/admin/login') { acts.signedOut(); }
      return found;
    });
  }
  function received(answer, more) {
    if (!more.progress || !answer.body || !answer.body.getReader) { return answer.blob(); }
    var reader = answer.body.getReader(), parts = [], bytes = 0;
    function next() {
      return reader.read().then(function (part) {
        if (part.done) { return new Blob(parts, { type: answer.headers.get('Content-Type') || '' }); }
        parts.push(part.value);
        bytes += part.value.length;
        if (more.most && bytes > more.most) { reader.cancel(); return null; }
        more.progress(bytes);
        return next();
      });
    }
    return next();
  }
  function problem(answer) {
    if (answer.status === 0) { return t('networkNow'); }
    if (answer.status === -1) { return figures.fill(t('tooBig'), { size: figures.size(acts.most) }); }
    var body = answer.body || {};
    var says = t('problems')[body.code] || body.detail || body.title || t('problems').internal_error;
    return says + (answer.status === 429 && answer.retryAfter ? ' ' + figures.fill(t('waitRetry'), { s: answer.retryAfter }) : '');
  }

  return { call: call, problem: problem };
};
