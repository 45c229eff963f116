package migrator

// The named steps of the work, in the order of a move. Each stands before or
// after a commit, a send or an acknowledgement: the places where a crash could
// do harm.
const (
	stepLookup          = "provision.lookup"
	stepFreeCommitted   = "provision.free.committed"
	stepEnsureBefore    = "ensure.before"
	stepEnsureAfter     = "ensure.after"
	stepCreated         = "created.committed"
	stepPasswordBefore  = "password.before"
	stepPasswordAfter   = "password.after"
	stepFolderBefore    = "folder.before"
	stepFolderCreated   = "folder.created"
	stepFolderCommitted = "folder.committed"
	stepMatched         = "match.committed"
	stepIntentBefore    = "intent.before"
	stepIntentCommitted = "intent.committed"
	stepSentHalf        = "batch.sent.half"
	stepSent            = "batch.sent"
	stepAcked           = "batch.acked"
	stepLooked          = "settle.looked"
	stepSettleBefore    = "settle.before"
	stepSettled         = "settle.committed"
	stepAsideBefore     = "aside.before"
	stepAsideAfter      = "aside.after"
	stepCompared        = "compare.done"
	stepFlipBefore      = "flip.before"
	stepFlipped         = "flip.committed"
)

// Steps lists the names that Options.Step may be called with. A move that
// meets no trouble passes all but password.*, match.committed, settle.looked
// and aside.*.
func Steps() []string {
	return []string{
		stepLookup, stepFreeCommitted, stepEnsureBefore, stepEnsureAfter, stepCreated,
		stepPasswordBefore, stepPasswordAfter,
		stepFolderBefore, stepFolderCreated, stepFolderCommitted, stepMatched,
		stepIntentBefore, stepIntentCommitted, stepSentHalf, stepSent, stepAcked,
		stepLooked, stepSettleBefore, stepSettled, stepAsideBefore, stepAsideAfter,
		stepCompared, stepFlipBefore, stepFlipped,
	}
}

func (m *Migrator) step(name string) {
	if m.o.Step != nil {
		m.o.Step(name)
	}
}
