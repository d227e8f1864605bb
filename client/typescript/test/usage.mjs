import {
  createInitialJob,
  storeJob,
  retrieveJob,
  getAllJobs,
  getJobDir,
  getJobsDir,
  defaultStoreCheckpoint,
  defaultRetrieveCheckpoint,
  getCheckpointsByJobId,
  getCheckpointDir,
  getCheckpointPath,
  defaultStoreEvent,
  getEventsByRun,
  getEventContents,
  storeRunSetting,
  getAllRuns,
  defaultGetRunDir,
} from "@perstack/storage"

// Create and store a job
const job = createInitialJob("job-123", "my-expert", 50)
storeJob(job)

// Retrieve a job
const retrieved = retrieveJob("job-123")

// Get all jobs
const jobs = getAllJobs()
