package livepage

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"
)

func TestAssetsAreKeptForGood(t *testing.T) {
	p := pageOf(five())
	for name, contentType := range map[string]string{"style.css": "text/css; charset=utf-8", "page.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml"} {
		want, err := assetFiles.ReadFile("assets/" + name)
		if err != nil {
			t.Fatal(err)
		}
		url := p.assets.url(name)
		plain := get(p, url)
		if diff := cmp.Diff(string(want), body(t, plain)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", url, diff)
		}
		zipped := get(p, url, "Accept-Encoding", "br, GZIP;q=0.5")
		r, err := gzip.NewReader(strings.NewReader(body(t, zipped)))
		if err != nil {
			t.Fatal(err)
		}
		var unzipped bytes.Buffer
		if _, err := unzipped.ReadFrom(r); err != nil || !bytes.Equal(unzipped.Bytes(), want) {
			t.Errorf("%s with gzip: %v, %d bytes, want %d", url, err, unzipped.Len(), len(want))
		}
		type header struct{ Type, Cache, Encoding, Vary string }
		headerOf := func(r *http.Response) header {
			return header{r.Header.Get("Content-Type"), r.Header.Get("Cache-Control"), r.Header.Get("Content-Encoding"), r.Header.Get("Vary")}
		}
		if diff := cmp.Diff([]header{
			{contentType, "public, max-age=31536000, immutable", "", "Accept-Encoding"}, {contentType, "public, max-age=31536000, immutable", "gzip", "Accept-Encoding"},
		}, []header{headerOf(plain), headerOf(zipped)}); diff != "" {
			t.Errorf("%s (-want +got):\n%s", url, diff)
		}
		if plain.Header.Get("ETag") == zipped.Header.Get("ETag") {
			t.Errorf("%s has the same ETag with and without gzip", url)
		}
		for _, r := range []*http.Response{plain, zipped} {
			again := get(p, url, "If-None-Match", r.Header.Get("ETag"), "Accept-Encoding", r.Header.Get("Content-Encoding"))
			if again.StatusCode != http.StatusNotModified {
				t.Errorf("%s again, with ETag %s: status %d", url, r.Header.Get("ETag"), again.StatusCode)
			}
		}
		if r := get(p, strings.Replace(url, ".", ".0", 1)); r.StatusCode != http.StatusNotFound {
			t.Errorf("%s with another hash: status %d", url, r.StatusCode)
		}
	}
}

func TestGzipIsUsedOnlyIfAccepted(t *testing.T) {
	p := pageOf(five())
	for header, want := range map[string]string{
		"": "", "gzip": "gzip", "br, gzip": "gzip", "gzip;q=0": "", "gzip; q=0.000": "", "gzip;q=0.1": "gzip", "identity": "", "x-gzip": "",
	} {
		for _, path := range []string{"/", "/api/listeners"} {
			if got := get(p, path, "Accept-Encoding", header).Header.Get("Content-Encoding"); got != want {
				t.Errorf("%s with Accept-Encoding %q: %q, want %q", path, header, got, want)
			}
		}
	}
}
