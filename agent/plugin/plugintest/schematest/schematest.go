// Package schematest validates the output of tests with the JSON Schemas under docs: those
// of the lines that sockwatch prints, of the answers of its API, and of the reports of
// "sockwatch check --live".
package schematest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/jsonschema-go/jsonschema"

	"sockwatch/agent/metric"
)

// Lines checks every line of text that begins like a point. It skips the others, and the
// last one if it does not end: its writer may have been killed.
func Lines(t testing.TB, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, `{"name":`) && strings.HasSuffix(line, "}\n") {
			Line(t, []byte(line))
		}
	}
}

// Line checks one line.
func Line(t testing.TB, line []byte) {
	t.Helper()
	if err := Check(line); err != nil {
		t.Errorf("%v\n%s", err, line)
	}
}

// Batch checks the lines of the points of a batch.
func Batch(t testing.TB, b *metric.Batch) {
	t.Helper()
	if err := CheckBatch(b); err != nil {
		t.Error(err)
	}
}

// CheckBatch returns the errors of the points of a batch, joined, or nil.
func CheckBatch(b *metric.Batch) error {
	var errs []error
	for _, points := range [][]metric.Point{b.Events, b.Points} {
		for i := range points {
			line, err := encode(&points[i], b.Time)
			if err == nil {
				err = Check(line)
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("%w\n%s", err, line))
			}
		}
	}
	return errors.Join(errs...)
}

// Events checks events of a simulation: one of each shape, that is of each kind with the
// same tags and fields, since there may be millions. They are checked with the numbers that
// the history gives them.
func Events(t testing.TB, events []metric.Point) {
	t.Helper()
	for i := range events {
		if checkedBefore(&events[i]) {
			continue
		}
		e := events[i]
		e.Fields = append(slices.Clone(e.Fields),
			metric.Field{Key: "history", Value: metric.String("1f06e09a45b4a474")}, metric.Field{Key: "sequence", Value: metric.Int(1)})
		Batch(t, &metric.Batch{Events: []metric.Point{e}})
	}
}

// Points checks points of a simulation: one of each shape.
func Points(t testing.TB, at time.Time, points []metric.Point) {
	t.Helper()
	for i := range points {
		if !checkedBefore(&points[i]) {
			Batch(t, &metric.Batch{Time: at, Points: points[i : i+1]})
		}
	}
}

// checkedBefore reports whether it has had a point of this shape before.
func checkedBefore(p *metric.Point) bool {
	shape := p.Name + " " + p.Tag("event")
	for _, tag := range p.Tags {
		shape += " " + tag.Key
	}
	for _, f := range p.Fields {
		shape += " " + f.Key
	}
	_, before := shapes.LoadOrStore(shape, true)
	return before
}

// shapes are the shapes of the points that Events and Points have checked.
var shapes sync.Map

// Check returns why a line is not valid, or nil.
func Check(line []byte) error {
	return validate(compileLines, line)
}

// Report checks a report of "sockwatch check --live --json".
func Report(t testing.TB, report []byte) {
	t.Helper()
	if err := validate(compileReport, report); err != nil {
		t.Errorf("%v\n%s", err, report)
	}
}

// API checks an answer of the live page to a script.
func API(t testing.TB, answer []byte) {
	t.Helper()
	if err := validate(compileAPI, answer); err != nil {
		t.Errorf("%v\n%s", err, answer)
	}
}

func validate(resolve func() (*jsonschema.Resolved, error), text []byte) error {
	schema, err := resolve()
	if err != nil {
		return err
	}
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		return err
	}
	return errors.Join(schema.Validate(value), checkTimes(value))
}

// checkTimes checks the times of lines and reports, in the place of "format": the library
// does not check formats.
func checkTimes(value any) error {
	switch value := value.(type) {
	case []any:
		for _, v := range value {
			if err := checkTimes(v); err != nil {
				return err
			}
		}
	case map[string]any:
		for _, key := range []string{"time", "timestamp"} {
			if text, ok := value[key].(string); ok {
				if _, err := time.Parse(time.RFC3339, text); err != nil {
					return fmt.Errorf("%s: %w", key, err)
				}
			}
		}
	}
	return nil
}

// encode returns the JSON of a point, with encoding/json: the tests of inputs cannot
// import the encoder of the outputs. A point without a time gets the one given.
func encode(p *metric.Point, at time.Time) ([]byte, error) {
	if !p.Time.IsZero() {
		at = p.Time
	}
	tags, fields := make(map[string]string), make(map[string]any)
	for _, t := range p.Tags {
		tags[t.Key] = t.Value
	}
	for _, f := range p.Fields {
		switch v := f.Value; v.Kind() {
		case metric.KindFloat:
			if n := v.AsFloat(); !math.IsNaN(n) && !math.IsInf(n, 0) {
				fields[f.Key] = n
			}
		case metric.KindInt:
			fields[f.Key] = v.AsInt()
		case metric.KindUint:
			fields[f.Key] = v.AsUint()
		case metric.KindBool:
			fields[f.Key] = v.AsBool()
		default:
			fields[f.Key] = v.AsString()
		}
	}
	return json.Marshal(map[string]any{
		"name": p.Name, "tags": tags, "fields": fields, "timestamp": at.UTC().Format("2006-01-02T15:04:05.000000000Z"),
	})
}

// The schemas are read once.
var (
	compileLines  = sync.OnceValues(func() (*jsonschema.Resolved, error) { return compile("jsonlines.schema.json") })
	compileAPI    = sync.OnceValues(func() (*jsonschema.Resolved, error) { return compile("api.schema.json") })
	compileReport = sync.OnceValues(func() (*jsonschema.Resolved, error) { return compile("report.schema.json") })
)

// compile compiles a schema of docs. It may refer to the others.
func compile(name string) (*jsonschema.Resolved, error) {
	schema, err := read(name)
	if err != nil {
		return nil, err
	}
	return schema.Resolve(&jsonschema.ResolveOptions{
		BaseURI: "file:///docs/" + name,
		Loader:  func(other *url.URL) (*jsonschema.Schema, error) { return read(path.Base(other.Path)) },
	})
}

// read reads a schema of docs.
func read(name string) (*jsonschema.Schema, error) {
	dir, err := os.Getwd() // that of the package under test
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(dir, "docs", name))
	for errors.Is(err, fs.ErrNotExist) && dir != filepath.Dir(dir) {
		dir = filepath.Dir(dir)
		text, err = os.ReadFile(filepath.Join(dir, "docs", name))
	}
	if err != nil {
		return nil, err
	}
	schema := new(jsonschema.Schema)
	if err := json.Unmarshal(text, schema); err != nil {
		return nil, fmt.Errorf("docs/%s: %w", name, err)
	}
	return schema, nil
}
