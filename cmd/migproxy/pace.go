package main

import (
	"fmt"
	"time"

	"migproxy/cmd/migproxy/internal/report"
	"migproxy/store"
)

func showRate(r store.Rate) string {
	if r.Seconds == 0 {
		return "nothing was copied lately"
	}
	return fmt.Sprintf("%.1f messages/s, %s/s, over %s of copying", r.Messages, report.Octets(int64(r.Bytes)), seconds(r.Seconds))
}

func showRemaining(r store.Remaining) string {
	text := fmt.Sprintf("%d messages of %d accounts", r.Messages, r.Accounts)
	if r.Uncounted > 0 {
		text += fmt.Sprintf(", %d of them not counted yet", r.Uncounted)
	}
	if r.Seconds > 0 {
		text += ", about " + seconds(r.Seconds)
	}
	return text
}

func seconds(n int64) string { return (time.Duration(n) * time.Second).String() }
