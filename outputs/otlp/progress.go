package otlp

import "crypto/sha256"

// A result is what happened to a record.
type result struct {
	done     bool  // it is stored or rejected: it must not be sent again
	rejected error // the reason, or nil
}

var stored = result{done: true}

func rejectedFor(reason error) result { return result{done: true, rejected: reason} }

// A progress remembers the results of records that stay queued, because a Push has stored or
// rejected some records and failed for others. The zero value remembers nothing.
type progress struct{ results map[[sha256.Size]byte]result }

// maxRemembered bounds the memory: there cannot be more records in a window. If there are
// more results, they are of records that have left the queue in another way.
const maxRemembered = 100_000

// recall returns a result for each record: those of earlier attempts, or the zero value.
func (p *progress) recall(records [][]byte) []result {
	results := make([]result, len(records))
	if len(p.results) > 0 {
		for i, r := range records {
			results[i] = p.results[sha256.Sum256(r)]
		}
	}
	return results
}

// remember adds the results of a Push that failed.
func (p *progress) remember(records [][]byte, results []result) {
	if p.results == nil || len(p.results) > maxRemembered {
		p.results = map[[sha256.Size]byte]result{}
	}
	for i, r := range records {
		if results[i].done {
			p.results[sha256.Sum256(r)] = results[i]
		}
	}
}

// forget removes the results of records that leave the queue.
func (p *progress) forget(records [][]byte) {
	if len(p.results) == 0 {
		return
	}
	for _, r := range records {
		delete(p.results, sha256.Sum256(r))
	}
}
