package livepage

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
)

//go:embed assets
var assetFiles embed.FS

//go:embed templates
var templateFiles embed.FS

// assets are the files that the page loads, by URL. A URL contains a hash of the content, so
// that browsers keep a file for good and still load a new one.
type assets struct {
	urls  map[string]string // by name
	files map[string]*asset // by URL
}

// An asset is one file.
type asset struct {
	contentType string
	etag        string
	body        []byte
	gzipped     []byte
}

func newAssets() assets {
	a := assets{map[string]string{}, map[string]*asset{}}
	entries, err := fs.ReadDir(assetFiles, "assets")
	if err != nil {
		panic(err) // it is part of the program
	}
	for _, e := range entries {
		body, err := assetFiles.ReadFile("assets/" + e.Name())
		if err != nil {
			panic(err)
		}
		sum := sha256.Sum256(body)
		hash := hex.EncodeToString(sum[:8])
		ext := path.Ext(e.Name())
		url := assetsPath + strings.TrimSuffix(e.Name(), ext) + "." + hash + ext
		a.urls[e.Name()] = url
		a.files[url] = &asset{contentType: contentTypes(ext), etag: `"` + hash + `"`, body: body, gzipped: compress(body)}
	}
	return a
}

// contentTypes returns the type of an asset. Package mime would look in the files of the
// host.
func contentTypes(ext string) string {
	switch ext {
	case ".css":
		return "text/css; charset=utf-8"
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	default:
		return "application/octet-stream"
	}
}

// url returns the URL of an asset. It panics if there is none, as a template would.
func (a assets) url(name string) string {
	url, ok := a.urls[name]
	if !ok {
		panic("no asset " + name)
	}
	return url
}

// serve answers with an asset.
func (a assets) serve(w http.ResponseWriter, r *http.Request) {
	f := a.files[r.URL.Path]
	if f == nil {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	h.Set("Content-Type", f.contentType)
	h.Set("Vary", "Accept-Encoding")
	body := f.body
	if acceptsGzip(r) {
		h.Set("Content-Encoding", "gzip")
		h.Set("ETag", strings.TrimSuffix(f.etag, `"`)+`-gzip"`)
		body = f.gzipped
	} else {
		h.Set("ETag", f.etag)
	}
	// The zero time adds no Last-Modified.
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}

// acceptsGzip reports whether a client accepts gzip.
func acceptsGzip(r *http.Request) bool {
	for element := range strings.SplitSeq(strings.Join(r.Header.Values("Accept-Encoding"), ","), ",") {
		coding, params, _ := strings.Cut(element, ";")
		params = strings.ReplaceAll(params, " ", "")
		if strings.EqualFold(strings.TrimSpace(coding), "gzip") && strings.Trim(params, "0.") != "q=" {
			return true
		}
	}
	return false
}

func compress(body []byte) []byte {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		panic(err) // the level is valid
	}
	_, _ = w.Write(body) // a Buffer takes everything
	_ = w.Close()
	return b.Bytes()
}
