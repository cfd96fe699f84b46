package influxdb

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/plugin"
	"sockwatch/outputs/internal/push"
	"sockwatch/outputs/internal/push/pushtest"
)

// TestAnswersThatBreakOff: only the status and the header of an incomplete answer count.
func TestAnswersThatBreakOff(t *testing.T) {
	server := pushtest.NewServer(t)
	for _, tt := range []struct {
		status     int
		kind, want string
	}{
		{200, "kept", "200 OK: the answer is incomplete: unexpected EOF: this is not how InfluxDB answers a write: check urls"},
		{400, "kept", "400 Bad Request: the answer is incomplete: unexpected EOF"},
		{401, "kept", "401 Unauthorized: the answer is incomplete: unexpected EOF"},
		{413, "too large", "413 Request Entity Too Large: the answer is incomplete: unexpected EOF (too large)"},
		{503, "after 7s", "503 Service Unavailable: the answer is incomplete: unexpected EOF (retry after 7s)"},
	} {
		server.Does(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(tt.status)
			w.Write([]byte("unable to parse"))
		})
		out, _ := newOutput(t, v1(server.URL))
		err := send(t, out, "m v=1i 1", "m v=2i 1")
		if diff := cmp.Diff([]string{tt.kind, server.URL + ": " + tt.want}, []string{pushtest.Kind(err), fmt.Sprint(err)}); diff != "" {
			t.Errorf("%d (-want +got)\n%s", tt.status, diff)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(400, "application/json", `{"error":"partial write: x dropped=1","data":[{"line_number":1,"error_message":"x"}]}`, false, 3)
	f.Add(503, "text/html", "<html>", false, 1)
	f.Add(500, "", "dropped=", false, 1)
	f.Add(307, "", `{"data":{}}`, false, 1)
	f.Add(400, "", "{\"error\":\"unable to parse 'm v=0i 0': x\\nunable to parse 'm v=2i 2': y", true, 3)
	f.Add(400, "", `{"message":"failed to parse line protocol:\nerror in line 2: x"}`, false, 3)
	f.Fuzz(func(t *testing.T, status int, contentType, body string, cut bool, n int) {
		o := v1("http://127.0.0.1:1")
		o.Username, o.Password = "user", "0123456789abcdef"
		out, _ := newOutput(t, o)
		raw := &push.Response{Status: status, Header: http.Header{"Content-Type": {contentType}}, Body: []byte(body), Cut: cut}
		var records [][]byte
		for i := range min(max(n, 1), 100) {
			records = append(records, fmt.Appendf(nil, "m v=%di %d", i, i))
		}
		err := out.classifier.classify(&push.Server{Name: "http://127.0.0.1:1"}, parseAnswer(raw), records)
		if (err == nil) != (status == http.StatusNoContent) {
			t.Fatalf("status %d: %v", status, err)
		}
		if err == nil {
			return
		}
		if strings.ContainsFunc(err.Error(), unicode.IsControl) || len(err.Error()) > 4096 {
			t.Errorf("not one short line: %q", err)
		}
		if err, ok := err.(*plugin.RejectedError); ok {
			if len(err.Records) == 0 {
				t.Error("a rejection of no record")
			}
			for i, reason := range err.Records {
				if i < 0 || i >= len(records) || reason == nil {
					t.Errorf("record %d of %d: %v", i, len(records), reason)
				}
			}
		}
	})
}
