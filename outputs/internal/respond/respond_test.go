package respond

import (
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func request(path string) *http.Request { return httptest.NewRequest(http.MethodGet, path, nil) }

func TestTooManyRequestsAtOnceAreRefused(t *testing.T) {
	refused := 0
	o := New(Options{Log: slog.New(slog.DiscardHandler), MaxRequests: 1, MaxUnread: 1, Refused: func() { refused++ }})
	making, release, answered := make(chan struct{}), make(chan struct{}), make(chan int, 1)
	go func() {
		w := httptest.NewRecorder()
		o.Respond(w, request("/a"), func() (*Response, error) {
			close(making)
			<-release
			return &Response{Body: []byte("first")}, nil
		})
		answered <- w.Code
	}()
	await(t, making)
	w := httptest.NewRecorder()
	o.Respond(w, request("/b"), func() (*Response, error) {
		t.Error("the response to a refused request is made")
		return nil, nil
	})
	if w.Code != 503 || w.Header().Get("Retry-After") != "1" || w.Body.String() != "1 requests are being answered\n" || refused != 1 {
		t.Errorf("status %d, Retry-After %q, %q, counted %d", w.Code, w.Header().Get("Retry-After"), w.Body, refused)
	}
	close(release)
	if code := await(t, answered); code != 200 {
		t.Errorf("the first request gets status %d", code)
	}
}

func await[T any](t *testing.T, ch <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(time.Minute):
		t.Fatal("nothing comes")
	}
	return v
}

// TestOnlyErrorsForTheClientAreShown, and the others are in the log.
func TestOnlyErrorsForTheClientAreShown(t *testing.T) {
	const internal = "internal error; the log of sockwatch has the reason\n"
	for _, test := range []struct {
		name       string
		do         func() (*Response, error)
		wantStatus int
		wantBody   string
		wantLog    string
	}{
		{name: "for the client", do: func() (*Response, error) { return nil, &Error{http.StatusBadRequest, "no such tag"} },
			wantStatus: 400, wantBody: "no such tag\n"},
		{name: "internal", do: func() (*Response, error) { return nil, errors.New("open /secret") },
			wantStatus: 500, wantBody: internal, wantLog: "level=ERROR msg=\"request failed, answering 500\" path=/a error=\"open /secret\"\n"},
		{name: "panic", do: func() (*Response, error) { panic("at 0x12") },
			wantStatus: 500, wantBody: internal, wantLog: "level=ERROR msg=\"panic while answering\" path=/a panic=\"at 0x12\""},
	} {
		t.Run(test.name, func(t *testing.T) {
			var log strings.Builder
			o := New(Options{MaxRequests: 1, MaxUnread: 1, Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{
				ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
					if a.Key == slog.TimeKey {
						return slog.Attr{}
					}
					return a
				}}))})
			for range 2 { // the slot is free again
				w := httptest.NewRecorder()
				o.Respond(w, request("/a"), test.do)
				if diff := cmp.Diff([]any{test.wantStatus, test.wantBody}, []any{w.Code, w.Body.String()}); diff != "" {
					t.Errorf("(-want +got)\n%s", diff)
				}
			}
			if got := log.String(); test.wantLog == "" && got != "" || !strings.HasPrefix(got, test.wantLog) {
				t.Errorf("the log has %s, want %s", got, test.wantLog)
			}
		})
	}
}
