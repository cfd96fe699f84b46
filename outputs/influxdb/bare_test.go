package influxdb

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
)

// barePost is what a program of ten lines would do.
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
