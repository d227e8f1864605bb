// One document, one program, one style sheet, without hashes in their names: the gateway serves them by
// name with an ETag, and puts them into the file of an exported job.
import { defineConfig } from "vite"

export default defineConfig({
  build: {
    outDir: "../python/perstack_storage/_inspect/page",
    emptyOutDir: true,
    modulePreload: false,
    assetsInlineLimit: 0,
    cssCodeSplit: false,
    target: "es2022",
    rollupOptions: {
      output: {
        entryFileNames: "page.js",
        assetFileNames: "page[extname]",
      },
    },
  },
})
