package remotewrite

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"sockwatch/agent/plugin"
	"sockwatch/outputs/internal/push"
)

// writtenHeader is where a server that understands 2.0 says how many samples it has stored.
const writtenHeader = "X-Prometheus-Remote-Write-Samples-Written"

// written returns the number of samples that a server says it has stored. It reports false
// if the server does not say.
func written(resp *push.Response) (int, bool) {
	n, err := strconv.Atoi(resp.Header.Get(writtenHeader))
	return n, err == nil && n >= 0
}

// understands2 reports whether an answer to a request of version 2.0 comes from a server that
// understands it. A server that does not look at the content type takes the request for an
// empty one of version 1.0, and answers with success; another cannot decode it. The header
// tells them apart.
func understands2(resp *push.Response) bool {
	switch resp.Status {
	case http.StatusUnsupportedMediaType:
		return false
	case http.StatusBadRequest, http.StatusNotAcceptable, http.StatusUnprocessableEntity, http.StatusNotImplemented:
		_, ok := written(resp)
		return ok
	default:
		_, ok := written(resp)
		return ok || resp.Status/100 != 2
	}
}

// classify returns the error for an answer to a request of either version.
func (o *output) classify(s *push.Server, resp *push.Response, c *collection, version string) error {
	stored, says := written(resp)
	says = says && version == version2
	text := func(format string, args ...any) error {
		return fmt.Errorf("%s: %s: %s", s.Name, o.client.Describe(resp), fmt.Sprintf(format, args...))
	}
	switch {
	case resp.Status == http.StatusUnsupportedMediaType || version == version2 && resp.Status/100 == 2 && !says:
		return text("the server does not understand version %s of remote write: check urls and protocol_version", version)
	case resp.Status/100 == 2 && says && stored < c.samples:
		return partial(c, stored, text("stored only %d of %d samples", stored, c.samples))
	case says && stored > 0 && (resp.Status/100 == 4 && isFinal(resp) || resp.Status == http.StatusBadRequest):
		return partial(c, stored, text("stored only %d of %d samples", stored, c.samples))
	case isFinal(resp):
		return plugin.RejectAll(c.records, fmt.Errorf("%s: %s", s.Name, o.client.Describe(resp)))
	default:
		return o.client.Classify(s, resp, c.records)
	}
}

// partial returns the error for a request of which the server stored only some samples. A
// record has several samples, so that the number of rejected records is an upper bound.
func partial(c *collection, stored int, err error) error {
	return &plugin.PartialError{Rejected: min(c.samples-stored, c.records), Err: err}
}

// isFinal reports whether an answer says that samples are too old, too new, out of order or
// duplicate.
func isFinal(resp *push.Response) bool { return push.RefusesTimes(resp.Status, resp.Text()) }

// isFinalRejection reports whether an error rejects all records of a request.
func isFinalRejection(err error) bool {
	rejected, ok := errors.AsType[*plugin.RejectedError](err)
	return ok && rejected.OthersStored && len(rejected.Records) > 0
}
