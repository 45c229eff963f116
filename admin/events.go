package admin

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"migproxy/store"
)

// eventsPage is how many events are read from the store at a time.
const eventsPage = 500

// events streams the log as one JSON object a line (?address=, ?after=), and
// with ?follow=true goes on with what is written, until either side ends.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	address := r.FormValue("address")
	if address != "" {
		id, err := s.identity(address)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		address = id.Address()
	}
	var after int64
	if v := r.FormValue("after"); v != "" {
		var err error
		if after, err = strconv.ParseInt(v, 10, 64); err != nil || after < 0 {
			s.fail(w, r, badRequest("after is the id of an event, a number"))
			return
		}
	}
	var changes <-chan store.Change
	if r.FormValue("follow") == "true" {
		// Before the first page is read, so that nothing falls between.
		var cancel func()
		changes, cancel = s.Store.Subscribe(true)
		defer cancel()
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := json.NewEncoder(deadlineWriter{w})
	for {
		var err error
		if after, err = s.writeEvents(r.Context(), out, address, after); err != nil {
			panic(http.ErrAbortHandler) // the client sees a cut, not an end
		}
		if changes == nil || http.NewResponseController(w).Flush() != nil || !awaitEvent(r.Context(), changes) {
			// The end of the answer is a write as well.
			_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
			return
		}
	}
}

// writeEvents writes the events after an id and returns the id of the last.
func (s *Server) writeEvents(ctx context.Context, out *json.Encoder, address string, after int64) (int64, error) {
	for {
		page, err := s.readEvents(ctx, address, after)
		if err != nil {
			return after, err
		}
		for _, e := range page {
			if err := out.Encode(viewEvent(e)); err != nil {
				return after, err
			}
			after = e.ID
		}
		if len(page) < eventsPage {
			return after, nil
		}
	}
}

func (s *Server) readEvents(ctx context.Context, address string, after int64) ([]store.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	return s.Store.Events(ctx, address, after, eventsPage)
}

// awaitEvent waits until an event was written; false at the end.
func awaitEvent(ctx context.Context, changes <-chan store.Change) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case c, open := <-changes:
			if !open {
				return false
			}
			if c.AccountID == 0 {
				return true
			}
		}
	}
}
