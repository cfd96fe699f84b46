package push

import (
	"net/http"
	"slices"
	"strings"
)

// timeTexts are the words with which databases refuse samples because of their times.
var timeTexts = []string{
	// Prometheus, and Thanos, which quotes it
	"out of order sample", "out of bounds", "too old sample", "duplicate sample for timestamp",
	// Grafana Mimir and Grafana Cloud
	"err-mimir-sample-timestamp-too-old", "err-mimir-sample-out-of-order", "err-mimir-sample-duplicate-timestamp",
	"err-mimir-too-far-in-future", "err-mimir-too-far-in-past", "err-mimir-sample-out-of-bounds",
	// Cortex and Amazon Managed Prometheus
	"sample timestamp out of order", "sample with repeated timestamp but different value", "timestamp too old", "timestamp too new",
}

// RefusesTimes reports whether an answer with a status and a text says that samples are too
// old, too new, out of order or duplicate: sending them again, alone or with others, does
// not help.
func RefusesTimes(status int, text string) bool {
	text = ownWords(text)
	switch status {
	case http.StatusBadRequest, http.StatusConflict, http.StatusUnprocessableEntity: // 409: Thanos
		return slices.ContainsFunc(timeTexts, func(t string) bool { return strings.Contains(text, t) })
	case http.StatusInternalServerError: // Prometheus 2.39 to 2.54 with an out-of-order window
		return strings.TrimSpace(text) == "too old sample"
	default:
		return false
	}
}

// ownWords returns a text up to the first series or quote in it: a label may contain any
// words.
func ownWords(text string) string {
	if i := strings.IndexAny(text, "{\"'`"); i >= 0 {
		return text[:i]
	}
	return text
}
