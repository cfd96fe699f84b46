package influxdb

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sockwatch/outputs/internal/push/pushtest"
)

// TestRequests checks what is sent to each API.
func TestRequests(t *testing.T) {
	for _, tt := range []struct {
		name    string
		options func(o *Options)
		path    string // of the URL in the options
		url     string // as requested
		login   string
		plain   bool
	}{
		{name: "1.x", options: func(o *Options) { o.Database = "d b" }, url: "/write?db=d+b&precision=ns"},
		{name: "1.x with all", options: func(o *Options) {
			o.Database, o.RetentionPolicy, o.Username, o.Password = "d", "rp", "u", "p:w"
		}, url: "/write?db=d&precision=ns&rp=rp", login: "Basic dTpwOnc="},
		{name: "2.x", options: func(o *Options) { o.Organization, o.Bucket, o.Token = "o", "b", "t0k" },
			url: "/api/v2/write?bucket=b&org=o&precision=ns", login: "Token t0k"},
		{name: "3.x", options: func(o *Options) { o.Database, o.Token = "d", "t0k" },
			url: "/api/v3/write_lp?db=d&precision=nanosecond", login: "Bearer t0k"},
		{name: "3.x without a token", options: func(o *Options) { o.API, o.Database = "v3", "d" },
			url: "/api/v3/write_lp?db=d&precision=nanosecond"},
		{name: "behind a path", path: "/influx/", options: func(o *Options) { o.Database = "d" }, url: "/influx/write?db=d&precision=ns"},
		{name: "uncompressed", options: func(o *Options) { o.Database, o.ContentEncoding = "d", "identity" },
			url: "/write?db=d&precision=ns", plain: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := pushtest.NewServer(t)
			o := Defaults()
			o.URLs = []string{server.URL + tt.path}
			tt.options(&o)
			out, log := newOutput(t, o)
			for range 2 {
				if err := send(t, out, "m v=1i 1", "m v=2i 2"); err != nil {
					t.Fatal(err)
				}
			}
			want := pushtest.Request{Method: "POST", URL: tt.url, Login: tt.login, Encoding: "gzip",
				ContentType: "text/plain; charset=utf-8", Body: "m v=1i 1\nm v=2i 2\n"}
			if tt.plain {
				want.Encoding = ""
			}
			if diff := cmp.Diff([]pushtest.Request{want, want}, server.Took(), cmpopts.IgnoreFields(pushtest.Request{}, "Header")); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if lines := log.Lines(); len(lines) > 0 {
				t.Errorf("logged %q", lines)
			}
		})
	}
}

func TestMaxBytes(t *testing.T) {
	o := v1("http://127.0.0.1:1")
	o.MaxBody = 12345
	out, _ := newOutput(t, o)
	if got := out.MaxBytes(); got != 12345 {
		t.Errorf("MaxBytes() = %d, want 12345", got)
	}
}

// BenchmarkPush compares Push with a bare loop of gzip and POST of the same lines to the
// same server. Push must be at least half as fast.
func BenchmarkPush(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := pushtest.ReadBody(r); err != nil {
			b.Error(err)
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	defer server.Close()
	out, _ := newOutput(b, v1(server.URL))
	var records [][]byte
	bytes := 0
	for i := range 5000 {
		records = append(records, encode(b, out, listener(fmt.Sprint("process", i)))[0])
		bytes += len(records[i]) + 1
	}
	b.Run("push", func(b *testing.B) {
		b.SetBytes(int64(bytes))
		for b.Loop() {
			if err := out.Push(b.Context(), records); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("bare", func(b *testing.B) {
		b.SetBytes(int64(bytes))
		for b.Loop() {
			if err := barePost(server.URL, records); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// barePost is what ten lines of code would do.
func barePost(url string, records [][]byte) error {
	var body bytes.Buffer
	z := gzip.NewWriter(&body)
	for _, r := range records {
		z.Write(r)
		z.Write([]byte{'\n'})
	}
	z.Close()
	req, err := http.NewRequest(http.MethodPost, url, &body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Encoding", "gzip")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		return fmt.Errorf("%s", resp.Status)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}
