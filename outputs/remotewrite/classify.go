package remotewrite

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"sockwatch/agent/plugin"
	"sockwatch/outputs/internal/push"
)

// writtenHeader is how a server that understands 2.0 says how many samples it has stored.
const writtenHeader = "X-Prometheus-Remote-Write-Samples-Written"

// written returns the number of samples that a server says it has stored. It reports false
// if the server does not say.
func written(a *push.Answer) (int, bool) {
	n, err := strconv.Atoi(a.Header.Get(writtenHeader))
	return n, err == nil && n >= 0
}

// understands2 reports whether an answer to a request of version 2.0 comes from a server that
// understands it. A server that does not look at the content type takes the request for an
// empty one of version 1.0, and answers with success. The header tells it apart.
func understands2(a *push.Answer) bool {
	if a.Status == http.StatusUnsupportedMediaType {
		return false
	}
	_, ok := written(a)
	return ok || a.Status/100 != 2
}

// classify returns the error for an answer to a request of either version.
func (o *output) classify(s *push.Server, a *push.Answer, c *collection, version string) error {
	stored, says := written(a)
	says = says && version == version2
	text := func(format string, args ...any) error {
		return fmt.Errorf("%s: %s: %s", s.Name, o.client.Describe(a), fmt.Sprintf(format, args...))
	}
	switch {
	case a.Status == http.StatusUnsupportedMediaType || version == version2 && !understands2(a):
		return text("the server does not understand version %s of remote write: check urls and protocol_version", version)
	case a.Status/100 == 2 && says && stored < c.samples:
		return partial(c, stored, text("stored only %d of %d samples", stored, c.samples))
	case says && stored > 0 && (a.Status/100 == 4 && isFinal(a) || a.Status == http.StatusBadRequest):
		return partial(c, stored, text("stored only %d of %d samples", stored, c.samples))
	case isFinal(a):
		return plugin.RejectAll(c.records, fmt.Errorf("%s: %s", s.Name, o.client.Describe(a)))
	default:
		return o.client.Classify(s, a, c.records)
	}
}

// partial returns the error for a request of which the server stored only some samples. A
// record has several samples, so that the number of rejected records is an upper bound.
func partial(c *collection, stored int, err error) error {
	return &plugin.PartialError{Rejected: min(c.samples-stored, c.records), Err: err}
}

// finalTexts are the words with which servers refuse samples because of their time: sending
// them again, or in other company, does not help.
var finalTexts = []string{
	// Prometheus, and Thanos, which quotes it
	"out of order sample", "out of bounds", "too old sample", "duplicate sample for timestamp",
	// Grafana Mimir and Grafana Cloud
	"err-mimir-sample-timestamp-too-old", "err-mimir-sample-out-of-order", "err-mimir-sample-duplicate-timestamp",
	"err-mimir-too-far-in-future", "err-mimir-too-far-in-past", "err-mimir-sample-out-of-bounds",
	// Cortex and Amazon Managed Prometheus
	"sample timestamp out of order", "sample with repeated timestamp but different value", "timestamp too old", "timestamp too new",
}

// isFinal reports whether an answer says that samples are too old, too new, out of order or
// duplicate.
func isFinal(a *push.Answer) bool {
	text := ownWords(a.Text())
	switch a.Status {
	case http.StatusBadRequest, http.StatusConflict, http.StatusUnprocessableEntity: // 409: Thanos
		for _, t := range finalTexts {
			if strings.Contains(text, t) {
				return true
			}
		}
		return false
	case http.StatusInternalServerError: // Prometheus 2.39 to 2.54 with an out-of-order window
		return strings.TrimSpace(text) == "too old sample"
	default:
		return false
	}
}

// ownWords returns the text of an answer up to the first series or quote in it: a label may
// contain any words.
func ownWords(text string) string {
	if i := strings.IndexAny(text, "{\"'`"); i >= 0 {
		return text[:i]
	}
	return text
}

// isFinalRejection reports whether an error rejects all records of a request.
func isFinalRejection(err error) bool {
	rejected, ok := errors.AsType[*plugin.RejectedError](err)
	return ok && rejected.OthersStored && len(rejected.Records) > 0
}

// isDecided reports whether an error says what becomes of the records: the server has
// answered, and the request is not repeated as it was.
func isDecided(err error) bool {
	_, isPartial := errors.AsType[*plugin.PartialError](err)
	return err == nil || isPartial || errors.Is(err, plugin.ErrRejected) || errors.Is(err, plugin.ErrTooLarge)
}
