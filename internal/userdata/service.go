package userdata

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// maxSize is more user data than any cloud takes.
const maxSize = 4 << 20

// A request has answerTime to be answered, and is made again after retryTime.
const (
	answerTime = 10 * time.Second
	retryTime  = time.Second
)

// patience is after how much silence waiting is mentioned.
const patience = 15 * time.Second

// Service is a metadata service.
type Service struct {
	// URL is http://169.254.169.254 on all clouds.
	URL string
	// Log is told what is waited for.
	Log func(string)
	// Retry is the time between requests, if it is not to be that of a service.
	Retry time.Duration
}

// client takes no proxy: the service is a neighbour.
var client = &http.Client{
	Timeout: answerTime,
	Transport: &http.Transport{
		Proxy: nil, DisableKeepAlives: true,
		DialContext: (&net.Dialer{Timeout: answerTime / 2}).DialContext,
	},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// errNoAnswer is that a metadata service did not answer in time.
var errNoAnswer = errors.New("no answer")

// get returns what the service has at a path; nil if it has nothing there.
func (s *Service) get(ctx context.Context, path string, headers http.Header) ([]byte, error) {
	data, status, err := s.ask(ctx, http.MethodGet, path, headers)
	switch {
	case err != nil:
		return nil, err
	case status == http.StatusOK:
		return data, nil
	case status == http.StatusNotFound, status == http.StatusNoContent:
		return nil, nil
	}
	return nil, fmt.Errorf("the metadata service at %s answers %d %s to the question for user data", s.URL, status, http.StatusText(status))
}

// ask makes a request until it is answered: the network may just be coming up, and a
// service that is busy says so.
func (s *Service) ask(ctx context.Context, method, path string, headers http.Header) ([]byte, int, error) {
	said, start := false, time.Now()
	var why error
	for {
		data, status, err := s.once(ctx, method, path, headers)
		if err == nil {
			return data, status, nil
		}
		if errors.Is(err, errTooMuch) {
			return nil, 0, err
		}
		if ctx.Err() == nil || why == nil {
			why = err // not that there is no more time
		}
		if !said && time.Since(start) > patience && s.Log != nil {
			s.Log(fmt.Sprintf("waiting for the metadata service at %s: %v", s.URL, why))
			said = true
		}
		wait := s.Retry
		if wait == 0 {
			wait = retryTime
		}
		select {
		case <-ctx.Done():
			return nil, 0, fmt.Errorf("%w from the metadata service at %s, which is asked for user data: %w", errNoAnswer, s.URL, why)
		case <-time.After(wait):
		}
	}
}

var errTooMuch = fmt.Errorf("the metadata service gives more than %d MiB of user data", maxSize>>20)

func (s *Service) once(ctx context.Context, method, path string, headers http.Header) ([]byte, int, error) {
	req, err := http.NewRequestWithContext(ctx, method, s.URL+path, nil)
	if err != nil {
		return nil, 0, err
	}
	for k, v := range headers {
		req.Header[k] = v
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, 0, short(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests {
		return nil, 0, fmt.Errorf("it answers %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxSize+1))
	if err != nil {
		return nil, 0, short(err)
	}
	if len(data) > maxSize {
		return nil, 0, errTooMuch
	}
	return data, resp.StatusCode, nil
}

// short leaves out what an error of net/http repeats: method and URL, and in the error
// of a connection the address.
func short(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil && !op.Timeout() {
		return op.Err
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return errors.New("nothing came back in time")
	}
	return err
}
