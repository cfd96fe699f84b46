package otlp

import (
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
)

// A result is what happened to a record.
type result struct {
	done     bool  // it is stored or rejected: it must not be sent again
	rejected error // the reason, or nil
}

var stored = result{done: true}

func rejectedFor(reason error) result { return result{done: true, rejected: reason} }

// A key identifies a record at its URL. Another URL has stored nothing of what one has.
type key [sha256.Size]byte

// A progress remembers the results of records that stay queued, because a Push has stored or
// rejected some records and failed for others.
type progress struct {
	urls    map[byte]string // by kind of record
	results map[key]result
	path    string // of the file with the keys of stored records, for the next start; "": none
	loaded  bool   // the file has been read
	warned  bool
	log     *slog.Logger
}

// maxRemembered bounds the memory: there cannot be more records in a window. If there are
// more results, they are of records that have left the queue in another way.
const maxRemembered = 100_000

func (p *progress) key(record []byte) (k key) {
	h := sha256.New()
	io.WriteString(h, p.urls[kindOf(record)]+"\x00")
	h.Write(record)
	h.Sum(k[:0])
	return k
}

// recall returns a result for each record: those of earlier attempts, or the zero value.
func (p *progress) recall(records [][]byte) []result {
	if !p.loaded {
		p.loaded = true
		p.load()
	}
	results := make([]result, len(records))
	if len(p.results) > 0 {
		for i, r := range records {
			results[i] = p.results[p.key(r)]
		}
	}
	return results
}

// remember adds the results of a Push that failed.
func (p *progress) remember(records [][]byte, results []result) {
	if p.results == nil || len(p.results) > maxRemembered {
		p.results = map[key]result{}
	}
	before := len(p.results)
	for i, r := range records {
		if results[i].done {
			p.results[p.key(r)] = results[i]
		}
	}
	if len(p.results) != before {
		p.warn(p.save())
	}
}

// forget removes the results of records that leave the queue.
func (p *progress) forget(records [][]byte) {
	if len(p.results) == 0 {
		return
	}
	for _, r := range records {
		delete(p.results, p.key(r))
	}
	if len(p.results) == 0 && p.path != "" {
		p.warn(os.Remove(p.path))
	}
}

// inherit takes over the results of a predecessor, which no longer uses them.
func (p *progress) inherit(from *progress) { p.results, p.loaded = from.results, from.loaded }

// load reads the file, which is keys without anything between them. What is damaged is no
// record's key.
func (p *progress) load() {
	if p.path == "" {
		return
	}
	data, err := os.ReadFile(p.path)
	p.warn(err)
	p.results = make(map[key]result, len(data)/sha256.Size)
	for ; len(data) >= sha256.Size && len(p.results) < maxRemembered; data = data[sha256.Size:] {
		p.results[key(data[:sha256.Size])] = stored
	}
}

// save replaces the file. Rejected records are not in it: they are sent again after a
// restart, and rejected again, so that their reasons are not lost.
func (p *progress) save() error {
	if p.path == "" {
		return nil
	}
	data := make([]byte, 0, len(p.results)*sha256.Size)
	for k, r := range p.results {
		if r.rejected == nil {
			data = append(data, k[:]...)
		}
	}
	next := p.path + ".tmp"
	if err := os.WriteFile(next, data, 0o600); err != nil {
		return err
	}
	return os.Rename(next, p.path)
}

// warn logs the first error of the file.
func (p *progress) warn(err error) {
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !p.warned {
		p.warned = true
		p.log.Warn("cannot keep what one URL has stored while the other one fails, a restart sends it again", "error", err)
	}
}
