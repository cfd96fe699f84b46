package format

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/influxdata/line-protocol/v2/lineprotocol"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin/plugintest/schematest"
)

var hostile = []string{
	"nginx", "a\nb c=1 2", `a\`, `a\,b=c`, `\\`, `\X0A`, `\x0a`, `\X5C`, "\x00\x7f", "#x", "é\u2028\u2029\u2027", "\u0085\ufffd", "<a&b>", "\b\f\n\r\t\v\x1f", `"`, "a\\\n", " ", ",", "=",
}

func seeds(f *testing.F) {
	for i, fl := range []float64{1e-6, 9.99e-7, 1e-9, 1e-10, 1e20, 1e21, 1e100, -1e-7, math.MaxFloat64, math.SmallestNonzeroFloat64, math.Copysign(0, -1), 1795341600.25} {
		f.Add("m", "k", "v", "f", "s", fl, int64(i), uint64(i), int64(i))
	}
	for i, s := range hostile {
		other := hostile[(i+3)%len(hostile)]
		f.Add(s, other, s, other, s, 0.1*float64(i), int64(-i), uint64(i)<<60, int64(i)*1e15)
	}
	f.Add("m", "k", "v", "f", "", math.Inf(1), int64(math.MinInt64), uint64(math.MaxUint64), int64(math.MaxInt64))
}

// fuzzed returns the point for a fuzz test's arguments, with the fields f (a
// string), float, int, uint and bool. It returns false for an invalid Point.
func fuzzed(name, key, value, field, str string, fl float64, i int64, u uint64, ns int64) (metric.Point, bool) {
	p := metric.Point{Name: name, Time: time.Unix(0, ns).UTC(), Tags: []metric.Tag{{Key: key, Value: value}}, Fields: []metric.Field{
		{Key: "0" + field, Value: metric.String(str)}, {Key: "float", Value: metric.Float(fl)}, {Key: "int", Value: metric.Int(i)},
		{Key: "uint", Value: metric.Uint(u)}, {Key: "bool", Value: metric.Bool(i%2 == 0)}}}
	return p, p.Check() == nil && !p.Time.IsZero()
}

// FuzzLineProtocol decodes each line with line-protocol's own decoder.
func FuzzLineProtocol(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, name, key, value, field, str string, fl float64, i int64, u uint64, ns int64) {
		p, ok := fuzzed(name, key, value, field, str, fl, i, u, ns)
		if !ok {
			t.Skip()
		}
		var l LineProtocol
		line, err := l.Encode(nil, &p)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range line {
			if b < ' ' || b == 0x7f {
				t.Fatalf("control character in %q", line)
			}
		}
		checkRestamp(t, &l, line, p)
		want := p
		want.Fields = nil
		for _, f := range p.Fields {
			switch {
			case f.Value.Kind() == metric.KindUint:
				f.Value = metric.Int(int64(min(u, math.MaxInt64)))
			case f.Value.Kind() == metric.KindFloat && (math.IsNaN(fl) || math.IsInf(fl, 0)):
				continue
			}
			want.Fields = append(want.Fields, f)
		}
		got := decodeLine(t, line)
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b metric.Value) bool { return a == b })); diff != "" {
			t.Errorf("%q (-want +got)\n%s", line, diff)
		}
	})
}

// decodeLine decodes a single line, and reverses escapeName.
func decodeLine(t *testing.T, line []byte) metric.Point {
	t.Helper()
	check := func(err error) {
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
	}
	d := lineprotocol.NewDecoderWithBytes(append(line, '\n'))
	if !d.Next() {
		t.Fatalf("%q is not a line", line)
	}
	name, err := d.Measurement()
	check(err)
	p := metric.Point{Name: unescape(string(name))}
	for {
		k, v, err := d.NextTag()
		check(err)
		if k == nil {
			break
		}
		p.Tags = append(p.Tags, metric.Tag{Key: unescape(string(k)), Value: unescape(string(v))})
	}
	for {
		k, v, err := d.NextField()
		check(err)
		if k == nil {
			break
		}
		var value metric.Value
		switch v.Kind() {
		case lineprotocol.Float:
			value = metric.Float(v.FloatV())
		case lineprotocol.Int:
			value = metric.Int(v.IntV())
		case lineprotocol.Bool:
			value = metric.Bool(v.BoolV())
		case lineprotocol.String:
			value = metric.String(unescape(v.StringV()))
		default:
			t.Fatalf("%q: field %s of kind %v", line, k, v.Kind())
		}
		p.Fields = append(p.Fields, metric.Field{Key: unescape(string(k)), Value: value})
	}
	at, err := d.Time(lineprotocol.Nanosecond, time.Time{})
	check(err)
	p.Time = at.UTC()
	if d.Next() {
		t.Fatalf("%q is more than one line", line)
	}
	return p
}

// unescape reverses \XHH.
func unescape(s string) string {
	var out []byte
	for i := 0; i < len(s); i++ {
		if i+3 < len(s) && s[i] == '\\' && s[i+1] == 'X' {
			if b, err := strconv.ParseUint(s[i+2:i+4], 16, 8); err == nil {
				out = append(out, byte(b))
				i += 3
				continue
			}
		}
		out = append(out, s[i])
	}
	return string(out)
}

// checkRestamp compares a line with another time with the result of Append.
func checkRestamp(t *testing.T, e Encoder, line []byte, p metric.Point) {
	t.Helper()
	for _, at := range []time.Time{p.Time.Add(1), p.Time.Add(-time.Hour), time.Unix(0, 0), time.Unix(1e9, 0), time.Unix(0, -1), time.Unix(-1e12, 0), time.Unix(1e12, 0)} {
		p.Time = at
		want, err := e.Encode([]byte("before "), &p)
		got, rerr := e.Restamp([]byte("before "), line, at)
		if (err != nil) != (rerr != nil) || err == nil && string(got) != string(want) || err != nil && string(got) != "before " {
			t.Errorf("%q at %v: Restamp gives %q, %v, want %q, %v", line, at, got, rerr, want, err)
		}
	}
}

// marshal uses encoding/json directly, as the reference for every object.
func marshal(p *metric.Point) ([]byte, error) {
	line := struct {
		Name      string            `json:"name"`
		Tags      map[string]string `json:"tags"`
		Fields    map[string]any    `json:"fields"`
		Timestamp string            `json:"timestamp"`
	}{p.Name, map[string]string{}, map[string]any{}, p.Time.UTC().Format("2006-01-02T15:04:05.000000000Z")}
	for _, t := range p.Tags {
		line.Tags[t.Key] = t.Value
	}
	for _, f := range p.Fields {
		switch f.Value.Kind() {
		case metric.KindFloat:
			if v := f.Value.AsFloat(); !math.IsNaN(v) && !math.IsInf(v, 0) {
				line.Fields[f.Key] = v
			}
		case metric.KindInt:
			line.Fields[f.Key] = f.Value.AsInt()
		case metric.KindUint:
			line.Fields[f.Key] = f.Value.AsUint()
		case metric.KindBool:
			line.Fields[f.Key] = f.Value.AsBool()
		default:
			line.Fields[f.Key] = f.Value.AsString()
		}
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(&line)
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'}), err
}

// FuzzJSON compares each object with that of encoding/json, and reads it back.
func FuzzJSON(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, name, key, value, field, str string, fl float64, i int64, u uint64, ns int64) {
		p, ok := fuzzed(name, key, value, field, str, fl, i, u, ns)
		if !ok {
			t.Skip()
		}
		for _, format := range []string{"unix", "unix_ms", "unix_us", "unix_ns"} {
			j := NewJSON(format)
			line, err := j.Encode(nil, &p)
			switch {
			case err == nil:
				checkRestamp(t, j, line, p)
			case format != "unix_ns" || err != errTimeRange:
				t.Fatal(err)
			}
		}
		j := NewJSON("rfc3339")
		line, err := j.Encode(nil, &p)
		if err != nil {
			t.Fatal(err)
		}
		checkRestamp(t, j, line, p)
		plain, err := marshal(&p)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(plain), string(line)); diff != "" {
			t.Errorf("(-encoding/json +got)\n%s", diff)
		}
		unknown := p
		unknown.Name = "fuzzed " + p.Name // points of this program have fixed fields
		if other, err := j.Encode(nil, &unknown); err == nil {
			schematest.Line(t, other)
		}
		if bytes.ContainsAny(line, "\r\n") || !utf8.Valid(line) {
			t.Fatalf("%q is not one line of UTF-8", line)
		}
		var got struct {
			Name      string
			Tags      map[string]string
			Fields    map[string]any
			Timestamp time.Time
		}
		d := json.NewDecoder(bytes.NewReader(line))
		d.UseNumber()
		d.DisallowUnknownFields()
		if err := d.Decode(&got); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if d.More() {
			t.Fatalf("%q is more than one object", line)
		}
		want := map[string]any{
			"0" + field: str, "bool": i%2 == 0,
			"int": json.Number(strconv.FormatInt(i, 10)), "uint": json.Number(strconv.FormatUint(u, 10)),
		}
		if n, ok := got.Fields["float"].(json.Number); ok {
			if back, err := n.Float64(); err != nil || back != fl {
				t.Errorf("float %v came back as %v, %v", fl, back, err)
			}
			delete(got.Fields, "float")
		} else if !math.IsNaN(fl) && !math.IsInf(fl, 0) {
			t.Errorf("float %v is missing in %q", fl, line)
		}
		if diff := cmp.Diff(want, got.Fields); diff != "" {
			t.Errorf("fields (-want +got)\n%s", diff)
		}
		if diff := cmp.Diff(map[string]string{key: value}, got.Tags); diff != "" {
			t.Errorf("tags (-want +got)\n%s", diff)
		}
		if got.Name != name || !got.Timestamp.Equal(p.Time) {
			t.Errorf("%q: name %q, time %v; want %q, %v", line, got.Name, got.Timestamp, name, p.Time)
		}
	})
}
